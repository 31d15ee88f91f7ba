"""What the wheel of optimum-neuron's stand-in holds: see `bake/localcloud/neuron_sdk.py`."""
