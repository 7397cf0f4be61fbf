"""Engine ``verl``: grpo and ppo on Ray, over one node or many (https://github.com/verl-project/verl).

``run.yaml`` stays the only thing a person writes. From it come, at the start of every attempt and below the run
directory: the overrides of verl's own configuration, the prompts in the form that verl reads, and the file with
the reward function that verl calls.
"""
