"""How trainings are carried out, which changes nothing of what they come to: logs and progress."""
