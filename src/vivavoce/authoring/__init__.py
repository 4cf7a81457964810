"""Help for writing a recipe: its keys explained, a schema for editors, a first recipe, its prompts.

Everything here is read off the pydantic models that check recipes, so that it agrees with them.
"""
