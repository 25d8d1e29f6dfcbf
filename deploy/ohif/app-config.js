// OHIF 3.13 on Foramen's DICOMweb: sign-in by OpenID Connect (code, PKCE) and the person's own rights, no password here.
// docs/how-to/view_with_ohif.md; change the one line below. https://docs.ohif.org/configuration/configurationFiles
const FORAMEN = 'https://foramen.example';

window.config = {
  routerBasename: '/',
  showStudyList: true,
  extensions: [],
  modes: [],
  maxNumberOfWebWorkers: 3,
  // A browser opens six connections to an HTTP/1.1 origin; behind HTTP/2 these may be larger.
  maxNumRequests: { interaction: 6, thumbnail: 3, prefetch: 6 },
  showErrorDetails: 'production',
  oidc: [
    {
      authority: FORAMEN,
      client_id: 'ohif',
      redirect_uri: '/callback',
      response_type: 'code',
      scope: 'openid fhirUser user/ImagingStudy.rs',
      // SMART App Launch: the token is asked for this server and no other.
      extraQueryParams: { aud: `${FORAMEN}/fhir` },
      automaticSilentRenew: false,
    },
  ],
  defaultDataSourceName: 'foramen',
  dataSources: [
    {
      namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
      sourceName: 'foramen',
      configuration: {
        friendlyName: 'Foramen',
        name: 'foramen',
        qidoRoot: `${FORAMEN}/dicom-web`,
        wadoRoot: `${FORAMEN}/dicom-web`,
        wadoUriRoot: `${FORAMEN}/dicom-web/wado`,
        qidoSupportsIncludeField: true,
        supportsFuzzyMatching: true,
        supportsWildcard: true,
        imageRendering: 'wadors',
        // Pictures are fetched with the token in the header: an <img> could not send it.
        thumbnailRendering: 'thumbnail',
        thumbnailRequestStrategy: 'fetch',
        enableStudyLazyLoad: true,
        staticWado: false,
        singlepart: 'bulkdata,video,pdf',
        bulkDataURI: { enabled: true },
      },
    },
  ],
};
