raise ImportError("No module named 'mlflow'")
