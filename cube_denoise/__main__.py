"""``python -m cube_denoise``."""

from cube_denoise.cli import main

if __name__ == "__main__":
    main()
