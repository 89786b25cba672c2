/* The steps of an epoch: scores, softmax loss, gradients, Adagrad. See benchmarks/step/job.py for the arrays. */

#include <math.h>
#include <stdint.h>
#include <string.h>

enum { MAX_LIST_SIZE = 4096 };

/* Adds the gradients of one list, divided by num_lists, and returns its loss. */
static float add_gradients(int list_size, int size, const float *restrict query, const int32_t *restrict items,
                           const float *restrict labels, const float *restrict item_table, float num_lists,
                           float *restrict query_gradient, float *restrict item_gradient, uint8_t *restrict marks) {
  float weights[MAX_LIST_SIZE];
  float highest = -INFINITY, sum = 0.0f, sum_labels = 0.0f, loss = 0.0f;
  int length = 0;
  while (length < list_size && labels[length] >= 0.0f) ++length;
  for (int i = 0; i < length; ++i) {
    const float *restrict item = item_table + (int64_t)items[i] * size;
    float score = 0.0f;
    for (int d = 0; d < size; ++d) score += query[d] * item[d];
    weights[i] = score;
    highest = score > highest ? score : highest;
    sum_labels += labels[i];
    loss -= labels[i] * score;
  }
  for (int i = 0; i < length; ++i) {
    weights[i] = expf(weights[i] - highest);
    sum += weights[i];
  }
  if (length) loss += sum_labels * (logf(sum) + highest);
  for (int i = 0; i < length; ++i) {
    const float weight = (weights[i] / sum * sum_labels - labels[i]) / num_lists;
    const float *restrict item = item_table + (int64_t)items[i] * size;
    float *restrict gradient = item_gradient + (int64_t)items[i] * size;
    marks[items[i]] = 1;
    for (int d = 0; d < size; ++d) {
      query_gradient[d] += weight * item[d];
      gradient[d] += weight * query[d];
    }
  }
  return loss;
}

/* Updates a table from its gradient, which is then 0 again. */
static void update(int num_rows, int size, float *restrict table, float *restrict slots, float *restrict gradient,
                   uint8_t *restrict marks, float learning_rate, float epsilon, int touched_rows) {
  for (int row = 0; row < num_rows; ++row) {
    if (touched_rows && !marks[row]) continue;
    const int64_t begin = (int64_t)row * size;
    for (int64_t i = begin; i < begin + size; ++i) {
      slots[i] += gradient[i] * gradient[i];
      table[i] -= learning_rate * gradient[i] / sqrtf(slots[i] + epsilon);
      gradient[i] = 0.0f;
    }
  }
  memset(marks, 0, num_rows);
}

/* Returns the sum of the losses of all lists. */
double train_epoch(int num_steps, int batch_size, int list_size, int size, int num_queries, int num_items,
                   const int32_t *queries, const int32_t *items, const float *labels, const float *num_lists,
                   float *query_table, float *query_slots, float *query_gradient, uint8_t *query_marks,
                   float *item_table, float *item_slots, float *item_gradient, uint8_t *item_marks,
                   float learning_rate, float epsilon, int touched_rows) {
  double total = 0.0;
  if (list_size > MAX_LIST_SIZE) return NAN;
  for (int step = 0; step < num_steps; ++step) {
    for (int row = 0; row < (int)num_lists[step]; ++row) {
      const int64_t list = (int64_t)step * batch_size + row;
      const int64_t query = queries[list];
      query_marks[query] = 1;
      total += add_gradients(list_size, size, query_table + query * size, items + list * list_size,
                             labels + list * list_size, item_table, num_lists[step], query_gradient + query * size,
                             item_gradient, item_marks);
    }
    update(num_queries, size, query_table, query_slots, query_gradient, query_marks, learning_rate, epsilon,
           touched_rows);
    update(num_items, size, item_table, item_slots, item_gradient, item_marks, learning_rate, epsilon, touched_rows);
  }
  return total;
}
