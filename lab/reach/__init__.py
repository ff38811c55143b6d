"""The course for those who do not install it: a book, slides, and the browser that tries both."""
