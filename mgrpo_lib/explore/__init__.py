"""What a person touches: a rollout explorer, a model that can be asked, curves while it trains."""
