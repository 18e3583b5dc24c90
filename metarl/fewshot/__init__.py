"""Few-shot learning: tasks of examples instead of episodes, adapted by the same inner loop."""
