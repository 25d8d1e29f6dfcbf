"""The supervisor behind `foramen up`: starts, watches, restarts and stops the parts of one installation."""
