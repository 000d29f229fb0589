"""How trainings are carried out, which changes nothing of what they come to: states, logs, progress."""
