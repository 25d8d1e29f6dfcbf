-- Pieces of two characters (dicomweb/index/folding.py) for the studies that are there: `*29*` finds its few candidates.
UPDATE dicomweb.study s SET grams = ARRAY(
    SELECT unnest(s.grams)
    UNION SELECT 'n' || substr(name, start, 2)
          FROM unnest(ARRAY[s.name_alphabetic, s.name_ideographic, s.name_phonetic]) AS name,
               generate_series(1, char_length(name) - 1) AS start
    UNION SELECT 'd' || substr(s.description, start, 2)
          FROM generate_series(1, char_length(s.description) - 1) AS start
    ORDER BY 1)
WHERE s.grams IS NOT NULL;
