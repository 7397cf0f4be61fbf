"""What is known of a language model without its weights and without torch: its parameters, by name and shape."""
