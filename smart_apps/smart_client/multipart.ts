/** Splits a multipart/related body. RFC 2046 §5.1, DICOM PS3.18 §8.6.1.2 */

/** The boundary named by a Content-Type, or undefined when the body is single-part. */
export function boundaryOf(contentType: string): string | undefined {
  if (!/^multipart\//i.test(contentType)) return undefined;
  const match = /boundary=(?:"([^"]+)"|([^;\s]+))/i.exec(contentType);
  return match?.[1] ?? match?.[2];
}

function indexOf(haystack: Uint8Array, needle: Uint8Array, from: number): number {
  outer: for (let i = haystack.indexOf(needle[0] ?? 0, from); i !== -1; i = haystack.indexOf(needle[0] ?? 0, i + 1)) {
    for (let j = 1; j < needle.length; j++) if (haystack[i + j] !== needle[j]) continue outer;
    return i;
  }
  return -1;
}

/** Bodies of all parts, without their headers; shares memory with `body`. */
export function splitMultipart(body: Uint8Array, boundary: string): Uint8Array[] {
  const encoder = new TextEncoder();
  const delimiter = encoder.encode(`--${boundary}`);
  const blankLine = encoder.encode("\r\n\r\n");
  const parts: Uint8Array[] = [];
  let at = indexOf(body, delimiter, 0);
  while (at !== -1) {
    const start = at + delimiter.length;
    if (body[start] === 0x2d && body[start + 1] === 0x2d) return parts;
    const header = indexOf(body, blankLine, start - 2 < 0 ? 0 : start);
    const next = indexOf(body, delimiter, start);
    if (header === -1 || next === -1 || header > next) break;
    parts.push(body.subarray(header + blankLine.length, next - 2));
    at = next;
  }
  throw new Error("The multipart answer is cut off");
}
