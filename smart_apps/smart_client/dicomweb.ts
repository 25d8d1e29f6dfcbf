/** DICOMweb with the app's own token. DICOM PS3.18 (WADO-RS, QIDO-RS); PS3.18 Annex F (DICOM JSON model) */
import { reach } from "./fhir_error";
import { boundaryOf, splitMultipart } from "./multipart";

export interface DicomJsonElement {
  vr: string;
  Value?: unknown[];
  BulkDataURI?: string;
}
export type DicomJson = Record<string, DicomJsonElement>;

export function firstValue<T>(instance: DicomJson, tag: string): T | undefined {
  return instance[tag]?.Value?.[0] as T | undefined;
}

export function numbersOf(instance: DicomJson, tag: string): number[] {
  return (instance[tag]?.Value ?? []).map(Number);
}

export class DicomWebClient {
  constructor(
    readonly base: string,
    readonly token: () => Promise<string>,
  ) {}

  private async request(path: string, accept: string, method = "GET"): Promise<Response> {
    const headers = { Accept: accept, Authorization: `Bearer ${await this.token()}` };
    return reach(`${this.base}/${path}`, { method, headers });
  }

  /** Metadata of every instance of a series. */
  async seriesMetadata(studyInstanceUid: string, seriesInstanceUid: string): Promise<DicomJson[]> {
    const path = `studies/${studyInstanceUid}/series/${seriesInstanceUid}/metadata`;
    return (await (await this.request(path, "application/dicom+json")).json()) as DicomJson[];
  }

  /** Whole DICOM files of a series. */
  async retrieveSeries(studyInstanceUid: string, seriesInstanceUid: string): Promise<Uint8Array[]> {
    const path = `studies/${studyInstanceUid}/series/${seriesInstanceUid}`;
    const response = await this.request(path, 'multipart/related; type="application/dicom"');
    const body = new Uint8Array(await response.arrayBuffer());
    const boundary = boundaryOf(response.headers.get("content-type") ?? "");
    return boundary ? splitMultipart(body, boundary) : [body];
  }

  /** Picture of an instance, of a presentation state: of the image that it shows; fitted into a square. */
  async rendered(studyInstanceUid: string, seriesInstanceUid: string, sopInstanceUid: string, side: number): Promise<Blob> {
    const path = `studies/${studyInstanceUid}/series/${seriesInstanceUid}/instances/${sopInstanceUid}/rendered`;
    return (await this.request(`${path}?viewport=${side},${side}`, "image/png")).blob();
  }

  /** Asks the gateway to look again for the patient of a study whose Task is on hold. */
  async registerStudy(studyInstanceUid: string): Promise<void> {
    await this.request(`studies/${studyInstanceUid}/register`, "application/json", "POST");
  }
}
