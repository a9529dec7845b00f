"""Builds the Linux imaging environment: Debian's signed kernel and a small root filesystem with the agent."""

from pxed.environment._build import FILES, Built, build, show

__all__ = ["FILES", "Built", "build", "show"]
