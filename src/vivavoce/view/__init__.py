"""The viewer: a run in the browser, from a small server on this machine or from static files."""
