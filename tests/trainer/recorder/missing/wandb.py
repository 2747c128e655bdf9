raise ImportError("No module named 'wandb'")
