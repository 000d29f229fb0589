"""Data sets and what a right answer is. A task is a function that loads one; `load_task` names it."""

from depthprune.tasks.base import Task, TaskData, TaskOptions, load_task, registry, task

__all__ = ["Task", "TaskData", "TaskOptions", "load_task", "registry", "task"]
