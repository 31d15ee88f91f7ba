"""Stands for optimum-neuron, which needs AWS's compiler to be installed and its devices to run.

What the worker calls of it takes the same arguments; `compiled` is the model itself, drawn on the CPU.
"""
