"""x"""


def measure(quick=False):
    return {}
