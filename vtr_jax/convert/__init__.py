"""Reading checkpoint files of other libraries, without those libraries and without running them."""
