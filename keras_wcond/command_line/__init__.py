from keras_wcond.command_line.parser import main

__all__ = ["main"]
