"""Draw an image for a text, or find one? Both, and the matching score decides between them.

gallery = make_gallery(40, size=100)                      # half of the texts have no right image
answers = gallery.answers(sd, n=4)                        # or draw_and_find(sd, texts, images)
chosen = answers.chosen(gallery.images())                 # (texts, 3, height, width)
gallery.right(chosen)                                     # (texts,), as judged
"""

from dsd_tutorial.retrieval.deciding import Answers, best_offset, draw_and_find
from dsd_tutorial.retrieval.galleries import Gallery, make_gallery, right_images

__all__ = [
    "Answers",
    "Gallery",
    "best_offset",
    "draw_and_find",
    "make_gallery",
    "right_images",
]
