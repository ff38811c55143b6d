"""A companion package to a notebook course on two papers that read and steer Stable Diffusion.

Importing it costs nearly nothing and never touches the network: every heavy library is imported
by the module that needs it, when it needs it.
"""

__version__ = "0.1.0"
