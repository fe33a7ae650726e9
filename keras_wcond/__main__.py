import sys

from keras_wcond.command_line import main

if __name__ == "__main__":
    sys.exit(main())
