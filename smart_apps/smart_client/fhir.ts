/** FHIR R4 over HTTP with the app's own token: read, search with paging, transaction. https://hl7.org/fhir/R4/http.html */
import { reach } from "./fhir_error";

export type Parameters = [string, string][];
type Typed<T extends fhir4.FhirResource["resourceType"]> = Extract<fhir4.FhirResource, { resourceType: T }>;

const FHIR_JSON = "application/fhir+json";

/** Resources of one type in a Bundle, leaving out what was included beside them. */
export function resourcesOf<T extends fhir4.FhirResource["resourceType"]>(bundle: fhir4.Bundle, type: T): Typed<T>[] {
  return (bundle.entry ?? []).flatMap((entry) => (entry.resource?.resourceType === type ? [entry.resource as Typed<T>] : []));
}

export function linkOf(bundle: fhir4.Bundle, relation: string): string | undefined {
  return bundle.link?.find((link) => link.relation === relation)?.url;
}

export class FhirClient {
  constructor(
    readonly base: string,
    private readonly token: () => Promise<string>,
  ) {}

  private async request(url: string, init: RequestInit = {}): Promise<unknown> {
    const headers = new Headers(init.headers);
    headers.set("Accept", FHIR_JSON);
    headers.set("Authorization", `Bearer ${await this.token()}`);
    const response = await reach(url, { ...init, headers, cache: "no-store" });
    return response.status === 204 ? undefined : response.json();
  }

  async read<T extends fhir4.FhirResource["resourceType"]>(type: T, id: string): Promise<Typed<T>> {
    return (await this.request(`${this.base}/${type}/${encodeURIComponent(id)}`)) as Typed<T>;
  }

  async search(type: string, parameters: Parameters, signal?: AbortSignal): Promise<fhir4.Bundle> {
    const query = new URLSearchParams(parameters).toString();
    return (await this.request(`${this.base}/${type}?${query}`, { signal: signal ?? null })) as fhir4.Bundle;
  }

  /** Follows a `next` or `previous` link; a link to another server is refused, because it would carry our token there. */
  async page(url: string, signal?: AbortSignal): Promise<fhir4.Bundle> {
    const target = new URL(url, this.base);
    if (target.origin !== new URL(this.base).origin) throw new Error("The paging link leads to another server");
    return (await this.request(target.href, { signal: signal ?? null })) as fhir4.Bundle;
  }

  /** All matches of one type, following `next` links up to `limit` resources. */
  async all<T extends fhir4.FhirResource["resourceType"]>(type: T, parameters: Parameters, limit = 1000): Promise<Typed<T>[]> {
    let bundle = await this.search(type, parameters);
    const found = resourcesOf(bundle, type);
    for (let next = linkOf(bundle, "next"); next && found.length < limit; next = linkOf(bundle, "next")) {
      bundle = await this.page(next);
      found.push(...resourcesOf(bundle, type));
    }
    return found;
  }

  async transaction(bundle: fhir4.Bundle): Promise<fhir4.Bundle> {
    const init = { method: "POST", body: JSON.stringify(bundle), headers: { "Content-Type": FHIR_JSON } };
    return (await this.request(this.base, init)) as fhir4.Bundle;
  }
}
