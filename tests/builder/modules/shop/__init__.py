"""A package that nothing but one test imports."""


def double(number):
    return number * 2
