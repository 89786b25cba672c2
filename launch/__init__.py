"""Starts the trainer on several processes or machines."""

from settings.signals import listen_from_start

# Before the other imports. It does nothing where the package is not run as a command.
listen_from_start("launch")
