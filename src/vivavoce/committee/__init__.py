"""The committee at its table: how it is asked, what it reads of each other, how its replies are read, how it votes."""
