"""The one HTML page of the viewer. Scripts and styles lie beside it and need no build."""

from __future__ import annotations

from vivavoce.report.assets import SCRIPTS


def page(at: str = "static", first: tuple[str, ...] = (), policy: str = "") -> str:
    """The page; ``at`` is the folder of its files, ``first`` are scripts that run before the others."""
    scripts = "\n".join(f'<script src="{at}/{name}"></script>' for name in (*first, *SCRIPTS))
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n' if policy else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
{meta}<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>viva view</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{at}/page.css">
<link rel="stylesheet" href="{at}/view.css">
</head>
<body class="app">
<div id="app"><p class="soft loading">loading …</p></div>
<noscript><p>The viewer needs JavaScript; nothing is loaded from elsewhere.</p></noscript>
{scripts}
</body>
</html>
"""


__all__ = ["page"]
