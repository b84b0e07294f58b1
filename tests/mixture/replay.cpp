/* Makes calls of the core that were written down on another machine, and writes what they changed.
 *
 *   replay CALLS ANSWERS [LEVEL]
 *
 * A call is a function, numbered in the order of `main`, and one or two records. A record is its
 * bytes, and for each of its pointers the place in the record, the bytes it points to, and how many there are.
 * Numbers are int64. An answer is the records in the same form, without the places. */
#include "core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

namespace {

FILE *calls, *answers;

void fail(const char *why) {
  fprintf(stderr, "replay: %s\n", why);
  exit(1);
}

void take(void *to, size_t size) {
  if (size && fread(to, 1, size, calls) != size) fail("the calls end too early");
}

void give(const void *from, size_t size) {
  if (size && fwrite(from, 1, size, answers) != size) fail("the answers cannot be written");
}

size_t number() {
  int64_t value;
  take(&value, sizeof value);
  return static_cast<size_t>(value);
}

struct Record {
  enum { MOST_POINTERS = 32 };
  size_t size, n_pointers;
  size_t places[MOST_POINTERS], sizes[MOST_POINTERS];
  char *arrays[MOST_POINTERS];
  alignas(64) char bytes[512];

  void read() {
    size = number();
    if (size > sizeof bytes) fail("a record is too large");
    take(bytes, size);
    n_pointers = number();
    if (n_pointers > MOST_POINTERS) fail("a record has too many pointers");
    for (size_t i = 0; i < n_pointers; i++) {
      places[i] = number();
      sizes[i] = number();
      void *array;  // of exactly its size: a sanitizer sees what is read or written beyond it
      if (posix_memalign(&array, 64, sizes[i])) fail("no memory");
      arrays[i] = static_cast<char *>(array);
      take(arrays[i], sizes[i]);
      memcpy(bytes + places[i], &arrays[i], sizeof arrays[i]);
    }
  }

  void write() {
    for (size_t i = 0; i < n_pointers; i++) memset(bytes + places[i], 0, sizeof arrays[i]);
    give(bytes, size);
    for (size_t i = 0; i < n_pointers; i++) {
      give(arrays[i], sizes[i]);
      free(arrays[i]);
    }
  }
};

template <class T>
T *as(Record &record) {
  return reinterpret_cast<T *>(record.bytes);
}

} // namespace

int main(int n_names, char **names) {
  calls = fopen(names[1], "rb");
  answers = fopen(names[2], "wb");
  if (!calls || !answers) fail("a file cannot be opened");
  const int level = n_names > 3 ? atoi(names[3]) : 0;
  static Record records[2];
  for (size_t left = number(); left; left--) {
    size_t function = number(), n_records = function < 2 ? 2 : 1;
    for (size_t i = 0; i < n_records; i++) records[i].read();
    int failed = function == 0   ? gmm_expect(as<gmm_task>(records[0]), as<gmm_sums>(records[1]), level)
                 : function == 1 ? gmm_score(as<gmm_task>(records[0]), as<gmm_scores>(records[1]), level)
                 : function == 2 ? gmm_look_at(as<gmm_look>(records[0]), level)
                 : function == 3 ? gmm_assign(as<gmm_groups>(records[0]), level)
                 : function == 4 ? gmm_measure(as<gmm_distances>(records[0]), level)
                 : function == 5 ? gmm_put_in_order(as<gmm_column>(records[0]), level)
                 : function == 6 ? gmm_explain(as<gmm_reasons>(records[0]), level)
                 : function == 7 ? gmm_find_two_best(as<gmm_two_best>(records[0]), level)
                                 : gmm_interpolate(as<gmm_curve>(records[0]), level);
    if (failed) fail("a call failed");
    for (size_t i = 0; i < n_records; i++) records[i].write();
  }
  return fclose(answers) ? 1 : 0;
}
