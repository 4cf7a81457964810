"""Where an agent acts over several turns: tools, observations, and whether the goal was reached."""
