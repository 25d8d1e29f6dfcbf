"""The words of the pages, Chinese and English, one file for each part; `foramen.admin.text` joins them."""
