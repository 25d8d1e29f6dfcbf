// A SEG written by highdicom (make_seg.py) must come out pixel for pixel; an asymmetric mask shows swapped bits or axes.
import { readFileSync } from "node:fs";
import { decodeSeg, largestSlice, levelOfLabel, overlayOf, setBits, sliceKey } from "@apps/result_review/segmentation";

const FOLDER = new URL(".", import.meta.url).pathname;
const expected = JSON.parse(readFileSync(`${FOLDER}seg_expected.json`, "utf-8")) as {
  rows: number;
  columns: number;
  labels: string[];
  slices: { sop: string; pixels: number[] }[];
};
const part10 = () => new Uint8Array(readFileSync(`${FOLDER}seg_binary.dcm`));

describe("setBits", () => {
  it("takes the least significant bit first (PS3.5 §8.1.1)", () => {
    expect([...setBits(Uint8Array.of(0b00000001, 0b10000000), 0, 16)]).toEqual([0, 15]);
  });

  it("starts and ends inside a byte, because frames are packed without padding", () => {
    expect([...setBits(Uint8Array.of(0b10111111, 0b11000010), 4, 6)]).toEqual([0, 1, 3, 5]);
  });

  it("refuses to invent pixels", () => {
    expect(() => setBits(Uint8Array.of(0), 0, 9)).toThrow(/fewer pixels/);
  });
});

describe("decodeSeg", () => {
  it("restores every labelmap on the slice it was drawn on", () => {
    const overlay = overlayOf([decodeSeg(part10())]);
    expect(overlay.segments.map((segment) => segment.label)).toEqual(expected.labels);
    for (const slice of expected.slices) {
      const empty = slice.pixels.every((pixel) => pixel === 0);
      const labelmap = overlay.labelmaps.get(sliceKey(slice.sop, 1));
      if (empty) expect(labelmap).toBeUndefined();
      else expect([...(labelmap ?? [])]).toEqual(slice.pixels);
    }
  });

  it("finds the slice on which a segment is largest", () => {
    const overlay = overlayOf([decodeSeg(part10())]);
    const area = (index: number) => expected.slices[index]?.pixels.filter((pixel) => pixel === 2).length ?? 0;
    const best = expected.slices.reduce((most, _, index) => (area(index) > area(most) ? index : most), 0);
    expect(largestSlice(overlay, 2)).toBe(sliceKey(expected.slices[best]?.sop ?? "", 1));
    expect(largestSlice(overlay, 99)).toBeUndefined();
  });

  it("says so when the file is cut off", () => {
    expect(() => decodeSeg(part10().subarray(0, 4000))).toThrow();
  });
});

describe("levelOfLabel", () => {
  it.each([
    ["L4-L5 disc", "L4-L5"],
    ["Disc L5/S1", "L5-S1"],
    ["T12-L1 disc", "T12-L1"],
    ["T11-T12 disc", "T11-T12"],
    ["vertebrae", undefined],
    ["L4 vertebra", undefined],
    ["spinal canal", undefined],
  ])("%s", (label, level) => expect(levelOfLabel(label)).toBe(level));
});
