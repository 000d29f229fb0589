"""`depthprune list`: strategies and tasks by name."""


def list_parts() -> None:
    """List the strategies and tasks."""
    from depthprune.strategies import registry as strategies
    from depthprune.tasks import registry as tasks

    print("strategies (--strategy):")
    for name, strategy in strategies.items():
        print(f"  {name:<16} {strategy.summary}  [{strategy.paper}]")
    print("tasks (--task):")
    for name, task in tasks.items():
        print(f"  {name:<16} {task.summary}")
