"""Programs that the project is compared with, written as tutorials do."""
