"""`python -m depthprune`, and `torchrun -m depthprune`."""

from depthprune.cli.main import main

if __name__ == "__main__":
    main()
