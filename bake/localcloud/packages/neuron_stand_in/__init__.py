"""What the wheel of optimum-neuron's stand-in holds: see `bake/localcloud/packages/neuron_sdk.py`."""
