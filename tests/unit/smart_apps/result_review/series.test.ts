// Slices in anatomical order, and the letters at the edges of the image.
import { directionLetters, edgeLetters, slicesOf } from "@apps/result_review/series";

function instance(sop: string, position: number[], orientation = [0, 1, 0, 0, 0, -1]) {
  return {
    "00080018": { vr: "UI", Value: [sop] },
    "00200032": { vr: "DS", Value: position },
    "00200037": { vr: "DS", Value: orientation },
  };
}

it("sorts along the normal, whatever the order of arrival and the instance numbers", () => {
  const slices = slicesOf([instance("c", [8, 0, 0]), instance("a", [-4, 0, 0]), instance("b", [2, 0, 0])]);
  // The normal of a sagittal slice with row +y and column -z is -x: from left to right.
  expect(slices.map((slice) => slice.sopInstanceUid)).toEqual(["c", "b", "a"]);
});

it("gives one slice per frame of a multi-frame instance", () => {
  const slices = slicesOf([{ ...instance("m", [0, 0, 0]), "00280008": { vr: "IS", Value: [3] } }]);
  expect(slices.map((slice) => slice.key)).toEqual(["m#1", "m#2", "m#3"]);
});

it("names the edges of a sagittal image: anterior left, posterior right, head up", () => {
  expect(edgeLetters(instance("a", [0, 0, 0]))).toEqual({ left: "A", right: "P", top: "H", bottom: "F" });
});

it("names the edges of an axial image: the patient's right is on the left", () => {
  expect(edgeLetters(instance("a", [0, 0, 0], [1, 0, 0, 0, 1, 0]))).toEqual({ left: "R", right: "L", top: "A", bottom: "P" });
});

it("writes two letters for a tilted axis, and none without orientation", () => {
  expect(directionLetters([0, 0.9, -0.43])).toBe("PF");
  expect(edgeLetters({})).toBeUndefined();
});
