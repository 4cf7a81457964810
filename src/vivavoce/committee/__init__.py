"""The committee: the prompts by which it is asked, the texts that its members read of each other, its replies and
votes.
"""
