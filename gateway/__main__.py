"""`python -m gateway` is `ostiary`."""

from gateway.cli import main

if __name__ == "__main__":
    main()
