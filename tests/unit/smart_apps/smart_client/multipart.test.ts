// multipart/related as DICOMweb sends it.
import { boundaryOf, splitMultipart } from "@client/multipart";

const bytes = (text: string) => new TextEncoder().encode(text);

it("finds the boundary, quoted or not", () => {
  expect(boundaryOf('multipart/related; type="application/dicom"; boundary="a b"')).toBe("a b");
  expect(boundaryOf("multipart/related; boundary=xyz; type=application/dicom")).toBe("xyz");
  expect(boundaryOf("application/dicom")).toBeUndefined();
});

it("gives the bodies of all parts byte for byte, even with line ends inside", () => {
  const body = bytes("--x\r\nContent-Type: application/dicom\r\n\r\none\r\n\r\ntwo\r\n--x\r\nA: b\r\n\r\n\r\n-\r\n--x--\r\n");
  expect(splitMultipart(body, "x").map((part) => new TextDecoder().decode(part))).toEqual(["one\r\n\r\ntwo", "\r\n-"]);
});

it("does not take a cut answer for a whole one", () => {
  expect(() => splitMultipart(bytes("--x\r\nA: b\r\n\r\nhalf"), "x")).toThrow(/cut off/);
});
