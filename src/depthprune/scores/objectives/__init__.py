"""What a plan costs on calibration data, an objective a file. No module here imports torch, so `list` is quick."""
