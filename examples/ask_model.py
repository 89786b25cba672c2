"""Asks an exported model for recommendations. It imports TensorFlow and nothing of Listwise.

python examples/ask_model.py FOLDER USER_ID
"""

import sys

import tensorflow as tf

folder, user_id = sys.argv[1:]
model = tf.saved_model.load(folder)
answer = model.signatures["recommend"](user_ids=tf.constant([user_id]))
for item_id, title, score in zip(
    answer["item_ids"].numpy()[0], answer["titles"].numpy()[0], answer["scores"].numpy()[0], strict=True
):
    print(f"{score:6.3f}  {item_id.decode():6}  {title.decode()}")
