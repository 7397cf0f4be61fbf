"""The use cases: what the commands do, joining scheduler and run directories. Nothing here prints."""
