"""What helps to write a recipe: its keys explained, a schema for editors, a first recipe, the prompts that it makes.

Everything here is read off the pydantic models that check recipes, so it cannot say other things than they do.
"""
