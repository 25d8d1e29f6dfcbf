/** Slices of a series in anatomical order, from its WADO-RS metadata. Pure. DICOM PS3.3 C.7.6.2.1.1 */
import { type DicomJson, firstValue, numbersOf } from "@client/dicomweb";
import { sliceKey } from "./segmentation";

const IPP = "00200032";
const IOP = "00200037";

export interface Slice {
  key: string;
  sopInstanceUid: string;
  frame: number;
  instance: DicomJson;
}

type Vector = [number, number, number];

export function cross(a: Vector, b: Vector): Vector {
  return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
}

/** Row and column direction cosines, or undefined when the instance has no orientation. */
export function axesOf(instance: DicomJson): { row: Vector; column: Vector } | undefined {
  const v = numbersOf(instance, IOP);
  if (v.length !== 6) return undefined;
  return { row: v.slice(0, 3) as Vector, column: v.slice(3) as Vector };
}

function position(instance: DicomJson, normal: Vector | undefined): number {
  const [x, y, z] = numbersOf(instance, IPP);
  if (!normal || x === undefined || y === undefined || z === undefined) return Number(firstValue(instance, "00200013") ?? 0);
  return x * normal[0] + y * normal[1] + z * normal[2];
}

/** One slice per frame, ordered along the normal of the first instance. */
export function slicesOf(instances: DicomJson[]): Slice[] {
  const axes = instances[0] ? axesOf(instances[0]) : undefined;
  const normal = axes ? cross(axes.row, axes.column) : undefined;
  const ordered = [...instances].sort((a, b) => position(a, normal) - position(b, normal));
  return ordered.flatMap((instance) => {
    const sopInstanceUid = firstValue<string>(instance, "00080018") ?? "";
    const frames = Number(firstValue(instance, "00280008") ?? 1);
    return Array.from({ length: frames }, (_, index) => ({
      key: sliceKey(sopInstanceUid, index + 1),
      sopInstanceUid,
      frame: index + 1,
      instance,
    }));
  });
}

/** Direction letters of a vector in LPS: the one or two largest parts, as radiologists write them (L, R, A, P, H, F). */
export function directionLetters(vector: Vector): string {
  const letters: [number, string][] = [
    [Math.abs(vector[0]), vector[0] > 0 ? "L" : "R"],
    [Math.abs(vector[1]), vector[1] > 0 ? "P" : "A"],
    [Math.abs(vector[2]), vector[2] > 0 ? "H" : "F"],
  ];
  return letters
    .filter(([size]) => size > 0.35)
    .sort((a, b) => b[0] - a[0])
    .slice(0, 2)
    .map(([, letter]) => letter)
    .join("");
}

export interface EdgeLetters {
  left: string;
  right: string;
  top: string;
  bottom: string;
}

/** What lies towards each edge of an image that is shown as stored. */
export function edgeLetters(instance: DicomJson): EdgeLetters | undefined {
  const axes = axesOf(instance);
  if (!axes) return undefined;
  const minus = (v: Vector): Vector => [-v[0], -v[1], -v[2]];
  return {
    right: directionLetters(axes.row),
    left: directionLetters(minus(axes.row)),
    bottom: directionLetters(axes.column),
    top: directionLetters(minus(axes.column)),
  };
}
