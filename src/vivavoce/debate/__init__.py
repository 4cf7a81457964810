"""Who speaks when: rounds of debate, and votes over what was said."""
