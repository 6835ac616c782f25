"""Multi-Layer GRPO by itself: what a step samples, how it is rewarded, what is summed. Imports no other room."""
