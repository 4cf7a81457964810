"""Short public messages (Twitter's): posts, comments, retweets, whom one follows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vivavoce.environments.bfcl.service import Refused, Service, item_of


class Posts(Service):
    """The posts of one user. An agent that is not logged in can only read."""

    NAME = "TwitterAPI"
    DOCUMENT = "posting_api.json"

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.username: str = config.get("username", "john")
        self.password: str = config.get("password", "john123")
        self.authenticated: bool = config.get("authenticated", False)
        self.tweets: dict[int, dict[str, Any]] = {int(id): one for id, one in config.get("tweets", {}).items()}
        self.comments = {int(id): comments for id, comments in config.get("comments", {}).items()}
        self.retweets: dict[str, list[int]] = config.get("retweets", {})
        self.following_list: list[str] = config.get("following_list", [])
        self.tweet_counter: int = config.get("tweet_counter", len(self.tweets))

    def authenticate_twitter(self, username: str, password: str) -> dict[str, bool]:
        """Log in."""
        if (username, password) != (self.username, self.password):
            return {"authentication_status": False}
        self.authenticated = True
        return {"authentication_status": True}

    def posting_get_login_status(self) -> dict[str, bool]:
        """Whether one is logged in."""
        return {"login_status": self.authenticated}

    def post_tweet(self, content: str, tags: list[str] = [], mentions: list[str] = []) -> dict[str, Any]:  # noqa: B006
        """Post."""
        self._need_login()
        tweet = {
            "id": self.tweet_counter,
            "username": self.username,
            "content": content,
            "tags": list(tags),
            "mentions": list(mentions),
        }
        self.tweets[self.tweet_counter] = tweet
        self.tweet_counter += 1
        return tweet

    def retweet(self, tweet_id: int) -> dict[str, str]:
        """Repeat another user's post."""
        self._need_login()
        self._tweet(tweet_id)
        retweeted = self.retweets.setdefault(self.username, [])
        if tweet_id in retweeted:
            return {"retweet_status": "retweeted before"}
        retweeted.append(tweet_id)
        return {"retweet_status": "retweeted"}

    def comment(self, tweet_id: int, comment_content: str) -> dict[str, str]:
        """Say something below a tweet."""
        self._need_login()
        self._tweet(tweet_id)
        self.comments.setdefault(tweet_id, []).append({"username": self.username, "content": comment_content})
        return {"comment_status": "commented"}

    def mention(self, tweet_id: int, mentioned_usernames: list[str]) -> dict[str, str]:
        """Mention users in a tweet that is there."""
        self._need_login()
        self._tweet(tweet_id)["mentions"].extend(mentioned_usernames)
        return {"mention_status": "mentioned"}

    def follow_user(self, username_to_follow: str) -> dict[str, bool]:
        """Follow."""
        self._need_login()
        if username_to_follow in self.following_list:
            return {"follow_status": False}
        self.following_list.append(username_to_follow)
        return {"follow_status": True}

    def unfollow_user(self, username_to_unfollow: str) -> dict[str, bool]:
        """Follow no longer."""
        self._need_login()
        if username_to_unfollow not in self.following_list:
            return {"unfollow_status": False}
        self.following_list.remove(username_to_unfollow)
        return {"unfollow_status": True}

    def list_all_following(self) -> dict[str, list[str]]:
        """Whom one follows."""
        self._need_login()
        return {"following_list": self.following_list}

    def get_tweet(self, tweet_id: int) -> dict[str, Any]:
        """One tweet."""
        return self._tweet(tweet_id)

    def get_user_tweets(self, username: str) -> dict[str, list[dict[str, Any]]]:
        """All tweets of a user."""
        return {"user_tweets": [tweet for tweet in self.tweets.values() if tweet["username"] == username]}

    def search_tweets(self, keyword: str) -> dict[str, list[dict[str, Any]]]:
        """Tweets whose text or tags hold a word, however it is written."""
        word = keyword.lower()
        matches = [t for t in self.tweets.values() if any(word in s.lower() for s in (t["content"], *t["tags"]))]
        return {"matching_tweets": matches}

    def get_tweet_comments(self, tweet_id: int) -> dict[str, list[dict[str, Any]]]:
        """The comments below a tweet."""
        self._tweet(tweet_id)
        return {"comments": self.comments.get(tweet_id, [])}

    def get_user_stats(self, username: str) -> dict[str, int]:
        """Counts of a user's posts. It is not known whom others follow."""
        return {
            "tweet_count": len(self.get_user_tweets(username)["user_tweets"]),
            "following_count": len(self.following_list) if username == self.username else 0,
            "retweet_count": len(self.retweets.get(username, [])),
        }

    def _need_login(self) -> None:
        if not self.authenticated:
            raise Refused("log in first, by authenticate_twitter")

    def _tweet(self, tweet_id: int) -> dict[str, Any]:
        return item_of(self.tweets, tweet_id, f"tweet {tweet_id}")


__all__ = ["Posts"]
